"""The learning half: features, layers, published systems, training, and the weights that ship. Knows no event loop and no socket."""
