"""What people made of predictions, in figures: whether drafts help, where they fail, what the score is worth."""
