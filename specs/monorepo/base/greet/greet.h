/* Writes "<phrase>, <name>!" and a newline to standard output. */
void greet(const char *phrase, const char *name);
