"""What stands on the screen: one pane, one module; each draws the model and knows no feed."""
