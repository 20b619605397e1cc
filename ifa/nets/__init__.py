"""Small networks that ship with the library, and the data they are trained on."""
