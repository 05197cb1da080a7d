"""What is looked at while a model trains: watchers know nothing of the trainer that calls them."""
