"""Web app: a page that segments uploaded images, and its HTTP API."""
