"""What a reader sees: tables, figures, Markdown and one self-contained HTML page, all byte-deterministic."""
