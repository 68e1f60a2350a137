"""Programs of the checkout that are not part of the installed package: the demo, the local stack and other checks."""
