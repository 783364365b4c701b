"""From the publisher's files to a checked manifest: sources, formats, images, duplicates, splits. Imports without torch."""
