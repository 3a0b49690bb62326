"""The papers' tables as data, and programs that compare this code with them."""
