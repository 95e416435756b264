//go:build tools

// Names the judge of HTTP/2 that is built from here, so that go.sum pins all that it is made of.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
