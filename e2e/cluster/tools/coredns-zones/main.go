// Command coredns-zones is CoreDNS with only what serves zone files, and refuses to.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
)

func main() {
	// The order in which a query passes the plugins, whatever the order in the Corefile.
	dnsserver.Directives = []string{"bind", "errors", "file"}
	coremain.Run()
}
