/* Counts the letters of its arguments: enough work to show that the program runs. */
#include <ctype.h>
#include <stdio.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        unsigned count['z' - 'a' + 1] = {0};
        for (const char *c = argv[i]; *c; c++)
            if (isascii(*c) && isalpha(*c))
                count[tolower(*c) - 'a']++;
        printf("%s:", argv[i]);
        for (int letter = 0; letter <= 'z' - 'a'; letter++)
            if (count[letter])
                printf(" %c=%u", 'a' + letter, count[letter]);
        putchar('\n');
    }
    return 0;
}
