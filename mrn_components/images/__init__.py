"""Images and masks as files hold them: what they are, how they are read."""
