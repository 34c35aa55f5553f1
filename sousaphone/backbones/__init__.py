"""One file an architecture; `registry.py` lists them. Build one through `sousaphone.model.load_backbone`."""
