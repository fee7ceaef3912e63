"""Integrations: counting in two lines what argparse, click, typer, logging, ASGI, WSGI, Flask, Django or pytest name.

Takes   what a framework tells whoever listens.
Gives   counts of names that the program's author wrote.
Never   changes what the framework does, and never loads one that the program does not use.
"""
