// Command coredns is CoreDNS with only the plugins that a test cluster uses, which makes it a fifth of the size to build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
)

func main() {
	// The order in which a query passes the plugins, whatever the order in the Corefile.
	dnsserver.Directives = []string{"reload", "ready", "errors", "cache", "kubernetes", "forward"}
	coremain.Run()
}
