"""What workers in the tests load where something is to go wrong."""
