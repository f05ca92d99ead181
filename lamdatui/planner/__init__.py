"""Talking to the planner, the locally hosted LLM: its process, its client, its prompts and its grammars."""
