"""Write `network/`: a CLIPSeg configuration of small size, and a tokenizer built from the prompts.

Nothing is fetched: the byte-pair encoding is learned from the prompt files beside this folder, in
the form of CLIP's (lower case, end-of-word marks, start and end of text).
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPSegConfig, CLIPTokenizer

HERE = Path(__file__).parent
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS, TOKENS, SIDE = 700, 48, 96


def texts() -> Iterator[str]:
    """All prompts of all sets, and the words of the attacks on prompts."""
    for path in sorted((HERE.parent / "prompts").glob("*.json")):
        content = json.loads(path.read_text())
        yield from content["paraphrases"]
        for words in content["texts"].values():
            yield from words.values()


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Learn the merges and write vocab.json, merges.txt and the tokenizer's configuration."""
    learned = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    learned.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    learned.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=[],
        show_progress=False,
    )
    # CLIP cuts at blanks first, so no token begins with one
    learned.train_from_iterator((word for t in texts() for word in t.lower().split()), trainer)
    model = json.loads(learned.to_str())["model"]
    vocabulary = sorted(model["vocab"], key=model["vocab"].get)
    vocabulary += [f"{letter}</w>" for letter in alphabet if f"{letter}</w>" not in vocabulary]
    numbers = {word: i for i, word in enumerate([*vocabulary, START, END])}
    merges = ["#version: 0.2", *(m if isinstance(m, str) else " ".join(m) for m in model["merges"])]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    made = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS
    )
    made.save_pretrained(folder)
    return made


def network(folder: Path, words: CLIPTokenizer) -> None:
    """Write config.json."""
    shared = {"num_attention_heads": 4, "hidden_act": "quick_gelu"}
    CLIPSegConfig(
        text_config={
            **shared,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "vocab_size": len(words),
            "max_position_embeddings": TOKENS,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.eos_token_id,
        },
        vision_config={
            **shared,
            "hidden_size": 160,
            "intermediate_size": 480,
            "num_hidden_layers": 6,
            "image_size": SIDE,
            "patch_size": 8,
        },
        projection_dim=96,
        extract_layers=[1, 3, 5],
        reduce_dim=64,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=256,
        conditional_layer=0,
    ).save_pretrained(folder)


if __name__ == "__main__":
    network(HERE / "network", tokenizer(HERE / "network"))
