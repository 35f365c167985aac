#include <greet.h>

#include <stdio.h>
#include <string.h>

/* Greets with each line of the file that the first argument names. */
int main(int argc, char **argv) {
    FILE *phrases = argc > 1 ? fopen(argv[1], "r") : NULL;
    if (!phrases) {
        perror("worker: cannot open the phrases");
        return 1;
    }
    char line[128];
    while (fgets(line, sizeof line, phrases)) {
        line[strcspn(line, "\n")] = '\0';
        greet(line, "worker");
    }
    return fclose(phrases);
}
