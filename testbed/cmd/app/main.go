// Command app is the only file of the scratch image, which stands for images without a shell: it
// sleeps until it is told to stop, and does a few small things that tests need of a container.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

const usage = `usage: app                sleep until SIGTERM
       app echo WORD...   print the words
       app cat            copy stdin to stdout
       app exit CODE      end with CODE
       app env            print the environment
       app write FILE     copy stdin to FILE
       app serve PORT     answer HTTP with "hello"`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
		<-stop
		return nil
	}
	command, args := args[0], args[1:]
	switch {
	case command == "echo":
		_, err := fmt.Println(strings.Join(args, " "))
		return err
	case command == "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case command == "env":
		for _, variable := range os.Environ() {
			fmt.Println(variable)
		}
		return nil
	case command == "exit" && len(args) == 1:
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case command == "write" && len(args) == 1:
		return write(args[0])
	case command == "serve" && len(args) == 1:
		return serve(args[0])
	}
	fmt.Fprintln(os.Stderr, usage)
	os.Exit(2)
	return nil
}

func write(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, os.Stdin); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

func serve(port string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() { <-stop; os.Exit(0) }()
	return http.ListenAndServe(":"+port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	}))
}
