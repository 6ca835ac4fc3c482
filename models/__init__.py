"""Everything that is trained and everything that is exported. The only package that imports TensorFlow."""
