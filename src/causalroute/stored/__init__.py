"""Feature files as training, methods and evaluation read them; `features` writes them."""
