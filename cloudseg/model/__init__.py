"""The nets, their one preprocessing, the weights file and the one forward pass that everything else uses."""
