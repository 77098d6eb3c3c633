"""What a trained or loaded model is used for."""
