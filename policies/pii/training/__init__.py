"""How the lists and the weights of the offline method are made. Not needed at run time, and not installed."""
