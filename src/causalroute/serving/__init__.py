"""A trained method in use: the saved model, predictions with explanations, the HTTP service, exports."""
