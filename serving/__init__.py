"""Starting and stopping TorchServe on this machine."""
