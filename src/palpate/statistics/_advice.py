"""What to do when a check of the audit on itself does not pass."""

from typing import Final

from palpate.statistics import _model_checks as model
from palpate.statistics import _probe_checks as probe
from palpate.statistics._shared_checks import SHARED
from palpate.statistics.certified import CERTIFIED

ADVICE: Final[dict[str, str]] = {
    model.RANDOM: (
        "switch every layer to evaluation mode and fix the model's random draws; if it is meant to"
        " be random, attack its expectation (a defence that averages over fixed draws)"
    ),
    model.COMPANY: "look for batch norms in training mode, or other sums over the batch",
    model.LOGITS: "wrap the network without its softmax: attacks need the logits",
    model.GRADIENTS: (
        "look for rounding, argmax, detach or a library call in the way of the gradient, and let it"
        " pass straight through; if only the cross-entropy has none, its logits are saturated:"
        " attack with `loss: margin` or `dlr`, or by `square`"
    ),
    model.BOX: "look for rounding or randomness in the model; add an attack without gradients",
    model.NORMALISATION: (
        "give the target the mean and std that the model was trained with, once: either inside the"
        " model or as `mean` and `std` of the target"
    ),
    probe.STEPS: "masked gradients are likely: add `square` and a `transfer` attack",
    probe.LADDER: "give the attack more steps and restarts; look at its step size",
    probe.UNBOUNDED: (
        "where much is left, gradients do not lead to wrong answers even without a limit, and no"
        " number of a gradient attack on this model is evidence; try `loss: margin`, `square`,"
        " `transfer`"
    ),
    probe.POINTS: "the gradients are of no use: add `square`, and look for what hides them",
    probe.BLACK: "gradients are masked: believe the attack without gradients, with more queries",
    probe.TRANSFER: "gradients are masked: believe the transferred attack, and look for the mask",
    probe.STARTS: "give the attacks `restarts: 5` or more; if it stays, the model is random",
    "the attack could act": "as under 'gradients reach the input'",
    "the loss of the attack rises": "the sign or the loss of the attack is wrong, or no gradient",
    "attack converged (loss flat over the last steps)": "double its steps and look again",
    "attack success equals the re-measured decisions": (
        "the model is random, or the attack reports what it did not reach: believe the re-measured"
    ),
    "best iterate against last": "the best counts here; tools that return the last will say more",
    "perturbation within the budget": "the attack is faulty: do not use its numbers",
    "pixels within the legal range": "the disturbance is faulty: do not use its numbers",
    "the curve reaches total failure": "add a larger epsilon",
    "clean accuracy above chance": "a model that guesses cannot be audited: check data and weights",
    "every planned cell finished": "mend what the error names and run again: it goes on from there",
    "intervals narrow enough to decide on": "audit on more patients",
    SHARED: (
        "that none was found is no evidence that none exists: try the other `method`, more `rounds`"
        " and a larger epsilon; if it fools its own samples alone, more `samples`"
    ),
    CERTIFIED: "let more `samples` vote; if it stays, the proof is wrong: do not use it",
}
NOT_RUN: Final[dict[str, str]] = {
    probe.BLACK: "add `square` to the attacks",
    probe.TRANSFER: "audit a second model beside it, or add `transfer` to the attacks",
    "targeted attacks": "add one with `goal`, or the targeted stages of `autoattack`",
    "attack adapted to the defence": "let a person who knows the defence look at the attacks",
}
"""What to do about a check that was not made; what a failure would mean is not known to be so."""
