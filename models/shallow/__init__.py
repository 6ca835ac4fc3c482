"""Families fitted by scikit-learn, one file each: arrays in, a form of `models.fitted` out. No TensorFlow here."""
