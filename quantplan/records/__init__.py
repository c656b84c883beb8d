"""quantplan's own JSON files, and the journals of finished work."""
