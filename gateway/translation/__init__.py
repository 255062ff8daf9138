"""Anthropic's Messages API for experts whose servers speak only OpenAI's chat completions. No HTTP is known here."""
