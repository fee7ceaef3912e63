"""At rest: nothing. The server's own load: documents as clients would post them, and who posts them."""
