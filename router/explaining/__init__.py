"""Why a prompt goes where it goes: nearest examples, strongest words, the arithmetic of the policy."""
