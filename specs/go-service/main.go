// A service with C in it: SQLite as the system has it, and a module that brings its own.
package main

import (
	"fmt"
	"net/http"
	"os"

	greet "example.invalid/Greet"
	"example.invalid/add"
)

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		fmt.Fprintf(answer, "%s %d %d", greet.Hello(), add.Add(40, 2), product(6, 7))
	})
	panic(http.ListenAndServe(":"+port, nil))
}
