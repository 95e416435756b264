// Reads a compose file as `docker compose config` does, by the library that it is made of.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithOsEnv, cli.WithDotEnv)
	if err == nil {
		project, failure := options.LoadProject(context.Background())
		if failure == nil {
			text, _ := project.MarshalYAML()
			fmt.Println(string(text))
			return
		}
		err = failure
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
