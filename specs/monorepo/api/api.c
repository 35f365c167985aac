#include <greet.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        greet("api says hello", argv[i]);
    return 0;
}
