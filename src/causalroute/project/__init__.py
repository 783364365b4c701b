"""A project folder for one table of posts: settings written for it, the packaged workflow run in it, the answer read from it."""
