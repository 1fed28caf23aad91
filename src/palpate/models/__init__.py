"""The architectures that Palpate owns: plain torch modules, one file each."""
