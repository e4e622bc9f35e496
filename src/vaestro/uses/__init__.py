"""What a trained model is good for: each use is a short function of a run."""
