"""A model server that minds what it is asked: it calls the tool it was given, answers with the tool's result, keeps to a schema.

It speaks as vLLM does, at every endpoint, whole and streamed; the same request always gets the same answer.
"""
