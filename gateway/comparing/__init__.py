"""The same prompts put to several experts: asked, graded, set side by side."""
