"""The files of a folder or a zip: what is listed, and what systems and gansweep leave behind."""
