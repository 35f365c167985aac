#include "greet.h"

#include <stdio.h>

void greet(const char *phrase, const char *name) {
    printf("%s, %s!\n", phrase, name);
}
