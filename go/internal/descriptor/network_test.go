package descriptor

import "testing"

func TestReadRefusesNetworks(t *testing.T) {
	refuses(t, []refusal{
		// the way out
		{"outbound with the host's network", with(`"network":{"outbound":false,"mode":"host"}`), Problems{{"network.outbound", "false", asHost, "leave it out: the container reaches what the host reaches"}}},
		{"hostLoopback with the host's network", with(`"network":{"hostLoopback":true,"mode":"host"}`), Problems{{"network.hostLoopback", "true", asHost, "leave it out: the host's loopback is the container's"}}},
		{"allow with the host's network", with(`"network":{"allow":[],"mode":"host"}`), Problems{{"network.allow", "[]", asHost, "leave it out, or make network.mode private: the host's own network can't be limited"}}},
		{"mtu with the host's network", with(`"network":{"mtu":1500,"mode":"host"}`), Problems{{"network.mtu", "1500", asHost, "leave it out: the host's interfaces have theirs"}}},
		{"hostLoopback without outbound", with(`"network":{"hostLoopback":true,"outbound":false}`), Problems{{"network.hostLoopback", "true", noWayOut, "leave it out, or make network.outbound true"}}},
		{"allow without outbound", with(`"network":{"outbound":false,"allow":["::/0"]}`), Problems{{"network.allow", `["::/0"]`, noWayOut, "leave it out, or make network.outbound true"}}},
		{"mtu without outbound", with(`"network":{"mtu":1500,"outbound":false}`), Problems{{"network.mtu", "1500", noWayOut, "leave it out, or make network.outbound true"}}},
		{"nothing allowed", with(`"network":{"allow":[]}`), Problems{{"network.allow", "[]", "at least one entry", "leave it out for no limit; network.outbound false is no way out"}}},
		{"allow beside a socket of the host", with(`"network":{"allow":["::/0"],"ports":[{"host":80,"container":80,"handOver":true}]}`), Problems{{"network.allow", `["::/0"]`, "nothing, as a port has handOver", "leave one of the two out: whoever has a socket of the host can reach what the host reaches"}}},
		{"allowed name without a port", with(`"network":{"allow":["::1:443","example.org"]}`), Problems{{"network.allow[1]", `"example.org"`, wantAllow, "a name needs a port: example.org:443"}}},
		{"mtu below IPv6's", with(`"network":{"mtu":1279}`), Problems{{"network.mtu", "1279", "an integer from 1280 to 65520", ""}}},
		{"name server by name", with(`"network":{"dns":["9.9.9.9","dns.quad9.net"]}`), Problems{{"network.dns[1]", `"dns.quad9.net"`, wantAddr, ""}}},
		{"host without an address", with(`"network":{"hosts":{"db":"db.internal"}}`), Problems{{"network.hosts.db", `"db.internal"`, wantAddr, ""}}},
		{"host with capitals", with(`"network":{"hosts":{"Db.internal":"::1"}}`), Problems{{`network.hosts["Db.internal"]`, `"Db.internal"`, wantHost, "write db.internal"}}},
		{"host is an address", with(`"network":{"hosts":{"10.0.0.1":"::1"}}`), Problems{{`network.hosts["10.0.0.1"]`, `"10.0.0.1"`, wantHost, ""}}},
		{"localhost elsewhere", with(`"network":{"hosts":{"localhost":"10.0.0.1"}}`), Problems{{"network.hosts.localhost", `"localhost"`, wantHost, ""}}},
		{"host twice", with(`"network":{"hosts":{"db":"::1","db":"::1"}}`), Problems{{"network.hosts.db", `"::1"`, wantOnce, oneOfTwo}}},
		{"host is a linked container", with(`"network":{"hosts":{"db":"10.0.0.1"}},"links":[{"listen":1,"to":"db"}]`), Problems{{"network.hosts.db", `"db"`, "no container of links or dependsOn", "such a name has its address already: remove it"}}},
		{"host is a depended-on container", with(`"dependsOn":["db"],"network":{"hosts":{"db":"10.0.0.1"}}`), Problems{{"network.hosts.db", `"db"`, "no container of links or dependsOn", "such a name has its address already: remove it"}}},

		// ranges and kinds of ports
		{"negative host port", ports(`{"host":-1,"container":53}`), Problems{{"network.ports[0].host", "-1", wantHostPort, ""}}},
		{"range of none", ports(`{"host":1,"container":1,"count":0}`), Problems{{"network.ports[0].count", "0", wantPort, ""}}},
		{"range beyond the last host port", ports(`{"host":65535,"container":1,"count":2}`), Problems{{"network.ports[0].count", "2", "at most 1, as host is 65535", "the last port is 65535"}}},
		{"range beyond the last container port", ports(`{"count":65535,"host":1,"container":2}`), Problems{{"network.ports[0].count", "65535", "at most 65534, as container is 2", "the last port is 65535"}}},
		{"ranges that overlap", ports(`{"host":8000,"container":1,"count":11},{"host":8010,"container":1,"count":2}`), Problems{{"network.ports[1].host", "8010", "ports 8010 to 8011, each declared once at 127.0.0.1", another}}},
		{"port within a range", ports(`{"host":8000,"container":1,"count":11},{"host":8005,"container":1}`), Problems{{"network.ports[1].host", "8005", "a port that is declared once at 127.0.0.1", another}}},
		{"range around a port at every address", ports(`{"host":8005,"container":1,"address":"0.0.0.0"},{"host":8000,"container":1,"count":11}`), Problems{{"network.ports[1].host", "8000", "ports 8000 to 8010, each declared once at 127.0.0.1", "0.0.0.0 is every address: " + another}}},
		{"handOver to another port", ports(`{"host":8080,"container":80,"handOver":true}`), Problems{{"network.ports[0].host", "8080", "80, the port in the container, as handOver is true", "make the two the same, or leave handOver out"}}},
		{"handOver of a chosen port", ports(`{"handOver":true,"host":0,"container":80}`), Problems{{"network.ports[0].host", "0", "80, the port in the container, as handOver is true", "make the two the same, or leave handOver out"}}},
		{"handOver and proxyProtocol", ports(`{"handOver":true,"proxyProtocol":true,"host":80,"container":80}`), Problems{{"network.ports[0].proxyProtocol", "true", "false, as handOver is true", "leave one of the two out"}}},
		{"handOver and socketActivation", ports(`{"socketActivation":true,"handOver":true,"host":80,"container":80}`), Problems{{"network.ports[0].socketActivation", "true", "false, as handOver is true", "leave one of the two out"}}},
		{"proxyProtocol of datagrams", ports(`{"proxyProtocol":true,"protocol":"udp","host":80,"container":80}`), Problems{{"network.ports[0].proxyProtocol", "true", "false, as protocol is udp", "leave it out, or make protocol tcp"}}},
		{"socketActivation of datagrams", ports(`{"socketActivation":true,"protocol":"udp","host":80,"container":80}`), Problems{{"network.ports[0].socketActivation", "true", "false, as protocol is udp", "leave it out, or make protocol tcp"}}},
		{"idle without socketActivation", with(`"network":{"idleStopSeconds":60,"ports":[{"host":1,"container":1}]}`), Problems{{"network.idleStopSeconds", "60", "it only where a port has socketActivation", "leave it out, or make socketActivation of a port true"}}},
		{"idle for no time", with(`"network":{"ports":[{"host":1,"container":1,"socketActivation":true}],"idleStopSeconds":0}`), Problems{{"network.idleStopSeconds", "0", "an integer from 1 to 86400", ""}}},

		// links and dependsOn
		{"link without anything", with(`"links":[{}]`), Problems{{"links[0].listen", "missing", wantPort, ""}, {"links[0].to", "missing", wantName, ""}}},
		{"link to the host", with(`"links":[{"listen":1,"to":"-"}]`), Problems{{"links[0].to", `"-"`, wantName, ""}}},
		{"link to itself", with(`"links":[{"listen":1,"to":"web"}]`), Problems{{"links[0].to", `"web"`, "another container, as this one is web", ""}}},
		{"link to itself before it has a name", `{"links":[{"listen":1,"to":"db"},{"listen":1,"to":"web"}],` + least + `}`, Problems{{"links[1].to", `"web"`, "another container, as this one is web", ""}}},
		{"link from the host's network", with(`"links":[{"listen":1,"to":"db"}],"network":{"mode":"host"}`), Problems{{"links", `[{"listen":1,"to":"db"}]`, "no links, as network.mode is host", "leave them out: `nuc link - PORT NAME PORT` listens on the host"}}},
		{"link of port 0", with(`"links":[{"listen":0,"to":"db","port":0}]`), Problems{{"links[0].listen", "0", wantPort, ""}, {"links[0].port", "0", wantPort, ""}}},
		{"link beyond the last port", with(`"links":[{"listen":65000,"to":"db","port":1,"count":537}]`), Problems{{"links[0].count", "537", "at most 536, as listen is 65000", "the last port is 65535"}}},
		{"link beyond the last port of the other", with(`"links":[{"listen":1,"to":"db","port":65000,"count":537}]`), Problems{{"links[0].count", "537", "at most 536, as port is 65000", "the last port is 65535"}}},
		{"link twice", with(`"links":[{"listen":1,"to":"db"},{"listen":1,"to":"db","port":2}]`), Problems{{"links[1].listen", "1", "a port that is listened on once at 127.123.220.37, the address of db", another}}},
		{"links whose ranges overlap", with(`"links":[{"listen":10,"to":"db","count":10},{"listen":1,"to":"db","count":10}]`), Problems{{"links[1].listen", "1", "ports 1 to 10, each listened on once at 127.123.220.37, the address of db", another}}},
		{"link twice, once with its address", with(`"links":[{"listen":1,"to":"db"},{"listen":1,"to":"cache","address":"127.123.220.37"}]`), Problems{{"links[1].listen", "1", "a port that is listened on once at 127.123.220.37", another}}},
		{"links at every address and at one", with(`"links":[{"listen":1,"to":"db","address":"0.0.0.0"},{"listen":1,"to":"cache"}]`), Problems{{"links[1].listen", "1", "a port that is listened on once at 127.94.30.206, the address of cache", "0.0.0.0 is every address: " + another}}},
		{"depends on itself", with(`"dependsOn":["db","web"]`), Problems{{"dependsOn[1]", `"web"`, "another container, as this one is web", ""}}},
		{"depends on one twice", with(`"dependsOn":["db","cache","db"]`), Problems{{"dependsOn[2]", `"db"`, "a container that stands once", oneOfTwo}}},
		{"depends on a folder", with(`"dependsOn":["~/db"]`), Problems{{"dependsOn[0]", `"~/db"`, wantName, ""}}},
	})
}
