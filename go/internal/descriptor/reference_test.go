package descriptor

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write docs/descriptor.schema.json and the tables of docs/descriptor.md")

const (
	markdownFile = "../../../docs/descriptor.md"
	schemaFile   = "../../../docs/descriptor.schema.json"
)

// walk calls f for every key of the table with its path: network.ports[].host.
func walk(prefix string, keys []key, f func(path string, k *key)) {
	for i := range keys {
		k := &keys[i]
		path := prefix + k.name
		f(path, k)
		if k.kind == isObjects {
			path += "[]"
		}
		walk(path+".", k.fields, f)
	}
}

func TestTableHasEveryField(t *testing.T) {
	kinds := map[string]kind{}
	var fields func(prefix string, of reflect.Type)
	fields = func(prefix string, of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			path := prefix + strings.TrimSuffix(f.Tag.Get("json"), ",omitempty")
			ft := f.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			switch ft.Kind() {
			case reflect.Struct:
				kinds[path] = isObject
				fields(path+".", ft)
			case reflect.Slice:
				kinds[path] = isStrings
				if ft.Elem().Kind() == reflect.Struct {
					kinds[path] = isObjects
					fields(path+"[].", ft.Elem())
				}
			case reflect.Map:
				kinds[path] = isMap
			case reflect.String:
				kinds[path] = isString
			case reflect.Bool:
				kinds[path] = isBoolean
			default:
				kinds[path] = isInteger
			}
		}
	}
	fields("", reflect.TypeFor[Descriptor]())
	table := map[string]kind{}
	walk("", keys, func(path string, k *key) { table[path] = k.kind })
	if diff := cmp.Diff(kinds, table); diff != "" {
		t.Errorf("fields of Descriptor (-) and table of keys (+):\n%s", diff)
	}
}

// TestTablePointsAtItsField reads every key with its example and looks for it
// at the same path of what Marshal writes.
func TestTablePointsAtItsField(t *testing.T) {
	walk("", keys, func(path string, k *key) {
		d, err := Read(exampleOf(path, k.example))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		at := strings.ReplaceAll(path, "[]", ".0")
		got, found := Query(d.Marshal(), at)
		want, _ := Query([]byte(`{"x":`+k.example+`}`), "x")
		if !found && (k.example == "false" || k.example == k.def) {
			return
		}
		if k.kind == isObject || k.kind == isObjects {
			return // its fields have their own turn
		}
		if squeeze(got) != squeeze(want) {
			t.Errorf("%s: example %s is read as %q", path, want, got)
		}
	})
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }

// beside is what an example needs beside it to be a descriptor.
var beside = map[string]string{
	".":                        `"version": 1, "name": "web", "system": { "init": "/sbin/init" }`,
	"system.":                  `"init": "/sbin/init"`,
	"root.sizeBytes":           `"ephemeral": true`,
	"mounts[].":                `"source": "/srv/data", "target": "/data"`,
	"mounts[].kind":            `"target": "/cache"`,
	"mounts[].sizeBytes":       `"kind": "tmpfs", "target": "/cache"`,
	"credentials[].":           `"name": "db-password"`,
	"credentials[].name":       `"file": "/home/ana/.secrets/db-password"`,
	"credentials[].optional":   `"name": "db-password", "file": "/home/ana/.secrets/db-password"`,
	"network.ports[].":         `"host": 8080, "container": 80`,
	"network.ports[].handOver": `"host": 80, "container": 80`,
	"network.idleStopSeconds":  `"ports": [{ "host": 8080, "container": 80, "socketActivation": true }]`,
	"links[].":                 `"listen": 5432, "to": "db"`,
}

// exampleOf makes a whole descriptor that has the value at the path.
func exampleOf(path, value string) []byte {
	parent, name := "", path
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	others, special := beside[path]
	if !special {
		others = beside[parent+"."]
	}
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte("{"+others+"}"), &members); err != nil {
		panic(err)
	}
	members[name] = json.RawMessage(value)
	object, err := json.Marshal(members)
	switch {
	case err != nil:
		panic(fmt.Sprintf("%s: %v", path, err))
	case parent == "":
		return object
	case strings.HasSuffix(parent, "[]"):
		return exampleOf(strings.TrimSuffix(parent, "[]"), "["+string(object)+"]")
	}
	return exampleOf(parent, string(object))
}

// markdownTables renders the tables between the reference's markers.
func markdownTables() string {
	var b strings.Builder
	table := func(title string, prefix string, keys []key, about string) {
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		if about != "" {
			b.WriteString(about + "\n\n")
		}
		b.WriteString("| key | type | unit | default | example | meaning |\n|---|---|---|---|---|---|\n")
		for i := range keys {
			k := &keys[i]
			def := "—"
			if k.required {
				def = "required"
			} else if k.def != "" {
				def = "`" + k.def + "`"
			}
			unit := "—"
			if k.unit != "" {
				unit = k.unit
			}
			doc := k.doc
			if k.kind == isInteger && k.min != k.max {
				limits := fmt.Sprintf(" From %d to %d.", k.min, k.max)
				if k.max == maxBytes {
					limits = fmt.Sprintf(" At least %d.", k.min)
				}
				doc += limits
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | `\"%s\": %s` | %s |\n", prefix+k.name, k.kind, unit, def, k.name, k.example, doc)
		}
	}
	table("Top level", "", keys, "")
	walk("", keys, func(path string, k *key) {
		if k.fields == nil {
			return
		}
		if k.kind == isObjects {
			path += "[]"
		}
		table("`"+path+"`", path+".", k.fields, k.doc)
	})
	return b.String() + "\n"
}

const beginTables, endTables = "<!-- keys -->\n", "<!-- /keys -->\n"

func TestMarkdownAgrees(t *testing.T) {
	content := readFile(t, markdownFile)
	head, rest, ok := strings.Cut(content, beginTables)
	got, tail, closed := strings.Cut(rest, endTables)
	if !ok || !closed {
		t.Fatalf("%s: no tables between %q and %q", markdownFile, beginTables, endTables)
	}
	want := markdownTables()
	if *update {
		writeFile(t, markdownFile, head+beginTables+want+endTables+tail)
		return
	}
	if diff := cmp.Diff(strings.Split(got, "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("docs/descriptor.md (-) and the table of keys (+); `go test ./go/internal/descriptor -update` writes it:\n%s", diff)
	}
}

// TestMarkdownExamples reads every example of the reference: the whole
// descriptors as they stand, the keys with what must be beside them.
func TestMarkdownExamples(t *testing.T) {
	content := readFile(t, markdownFile)
	blocks := regexp.MustCompile("(?ms)^```json\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?").FindAllStringSubmatch(content, -1)
	if len(blocks) < 2 {
		t.Errorf("%d whole descriptors, want a complete one and a refused one", len(blocks))
	}
	for i, block := range blocks {
		_, err := Read([]byte(block[1]))
		said := ""
		if err != nil {
			said = err.Error() + "\n"
		}
		if said != block[2] {
			t.Errorf("descriptor %d says:\n%s\nthe reference claims:\n%s", i, said, block[2])
		}
	}

	examples := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| .* \\| `\"\\w+\": ([^`]*)` \\| .* \\|$").FindAllStringSubmatch(content, -1) {
		examples[row[1]] = row[2]
	}
	walk("", keys, func(path string, k *key) {
		example, found := examples[path]
		if !found {
			t.Errorf("%s: no example", path)
			return
		}
		if _, err := Read(exampleOf(path, example)); err != nil {
			t.Errorf("%s: example %s: %v", path, example, err)
		}
	})
}

func TestSchemaAgrees(t *testing.T) {
	want := schema()
	if *update {
		writeFile(t, schemaFile, want)
		return
	}
	got := readFile(t, schemaFile)

	type facts struct{ Type, Default, Description string }
	inSchema, inTable := map[string]facts{}, map[string]facts{}
	type node struct {
		Type        string
		Default     json.RawMessage
		Description string
		Properties  map[string]*node
		Items       *node
		Required    []string
		Additional  json.RawMessage `json:"additionalProperties"`
	}
	var collect func(prefix string, n *node)
	collect = func(prefix string, n *node) {
		if n.Type == "object" && n.Properties != nil && string(n.Additional) != "false" {
			t.Errorf("%q takes additional properties", prefix)
		}
		for name, p := range n.Properties {
			f := facts{Type: p.Type, Default: string(p.Default), Description: p.Description}
			for _, r := range n.Required {
				if r == name {
					f.Default = "required"
				}
			}
			inSchema[prefix+name] = f
			if p.Items != nil && p.Items.Type == "object" {
				collect(prefix+name+"[].", p.Items)
			}
			collect(prefix+name+".", p)
		}
	}
	var root node
	if err := json.Unmarshal([]byte(got), &root); err != nil {
		t.Fatalf("%s: %v", schemaFile, err)
	}
	collect("", &root)
	walk("", keys, func(path string, k *key) {
		f := facts{schemaTypes[k.kind], squeeze(k.def), k.doc}
		if k.required {
			f.Default = "required"
		}
		inTable[path] = f
	})
	if diff := cmp.Diff(inSchema, inTable); diff != "" {
		t.Errorf("docs/descriptor.schema.json (-) and the table of keys (+):\n%s", diff)
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("docs/descriptor.schema.json (-) and what the rules make (+); `go test ./go/internal/descriptor -update` writes it:\n%s", diff)
	}
}

// TestCorpusIsJudgedAlike: a file's name in bad and beyond-schema is the path
// of its only problem without quotes, two dashes, and what is wrong there.
func TestCorpusIsJudgedAlike(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	compiled, err := compiler.Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]struct{ read, schema bool }{
		"good":          {true, true},
		"bad":           {false, false},
		"beyond-schema": {false, true},
	} {
		files, err := filepath.Glob(filepath.Join("testdata", folder, "*.json"))
		if err != nil || len(files) < 5 {
			t.Errorf("%s: %d files, %v", folder, len(files), err)
		}
		for _, file := range files {
			t.Run(folder+"/"+filepath.Base(file), func(t *testing.T) {
				content := readFile(t, file)
				_, err := Read([]byte(content))
				if (err == nil) != want.read {
					t.Errorf("Read says %v", err)
				}
				var problems Problems
				if errors.As(err, &problems) {
					path, _, _ := strings.Cut(filepath.Base(file), "--")
					if len(problems) != 1 || strings.ReplaceAll(problems[0].Path, `"`, "") != path {
						t.Errorf("Read says %v, want one problem at %s", err, path)
					}
				}
				value, err := jsonschema.UnmarshalJSON(strings.NewReader(content))
				if err != nil {
					t.Fatal(err)
				}
				if err := compiled.Validate(value); (err == nil) != want.schema {
					t.Errorf("the schema says %v", err)
				}
			})
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

var schemaTypes = map[kind]string{
	isObject: "object", isObjects: "array", isString: "string", isStrings: "array",
	isMap: "object", isInteger: "integer", isBoolean: "boolean",
}

// members is a JSON object in a chosen order.
type members []struct {
	name  string
	value any
}

func (m *members) add(name string, value any) {
	*m = append(*m, struct {
		name  string
		value any
	}{name, value})
}

func (m members) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, member := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", member.name)
		var value bytes.Buffer
		e := json.NewEncoder(&value)
		e.SetEscapeHTML(false)
		if err := e.Encode(member.value); err != nil {
			return nil, err
		}
		b.Write(bytes.TrimSpace(value.Bytes()))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// What the schema says of each rule; JSON Schema has no look-ahead that every
// regular-expression engine knows, so "but not" is a schema of its own.
var ruleSchemas = map[rule]string{
	ruleText:      `{"not":{"pattern":"\u0000"}}`,
	ruleName:      `{"pattern":"^[a-z0-9][a-z0-9-]{0,62}$"}`,
	rulePath:      `{"pattern":"^/([^/\u0000-\u001f\u007f]+(/[^/\u0000-\u001f\u007f]+)*)?$","maxLength":4095,"not":{"pattern":"/\\.{1,2}(/|$)"}}`,
	ruleFile:      `{"$ref":"#/$defs/path","minLength":2}`,
	ruleStorePath: `{"pattern":"^/nix/store/[0-9A-Za-z+_?=-][0-9A-Za-z+._?=-]*$"}`,
	ruleDevice:    `{"$ref":"#/$defs/path","pattern":"^/dev/","not":{"pattern":"^/dev/(console|kmsg|mqueue|ptmx|pts|shm)(/|$)"}}`,
	ruleTarget:    `{"$ref":"#/$defs/path","not":{"pattern":"^/(run)?$|^/(proc|sys|dev|run/host)(/|$)"}}`,
	ruleSignal:    `{"pattern":"^SIG(HUP|INT|QUIT|ILL|TRAP|ABRT|BUS|FPE|USR1|SEGV|USR2|PIPE|ALRM|TERM|CHLD|CONT|TSTP|TTIN|TTOU|URG|XCPU|XFSZ|VTALRM|PROF|WINCH|IO|PWR|SYS|RTMIN(\\+([0-9]|[12][0-9]|30))?)$"}`,
	ruleAddress:   `{"anyOf":[{"format":"ipv4"},{"format":"ipv6"}]}`,
	ruleHostName:  `{"pattern":"^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$","maxLength":253,"not":{"pattern":"^localhost$|(^|\\.)[0-9]+$"}}`,
	ruleAllow: `{"anyOf":[
		{"pattern":"^[0-9.]+(/[0-9]{1,2})?(:[1-9][0-9]{0,4}(/(tcp|udp))?)?$","not":{"pattern":"^127\\."}},
		{"pattern":"^[0-9a-fA-F:]*:[0-9a-fA-F:.]*(/[0-9]{1,3})?$","not":{"pattern":"^::1$"}},
		{"pattern":"^\\[[0-9a-fA-F:]*:[0-9a-fA-F:.]*(/[0-9]{1,3})?\\]:[1-9][0-9]{0,4}(/(tcp|udp))?$"},
		{"pattern":"^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*:[1-9][0-9]{0,4}(/(tcp|udp))?$","not":{"pattern":"^localhost:|^([^:]*\\.)?[0-9]+:"}}]}`,
	ruleUnit:       `{"pattern":"^[0-9A-Za-z:_.\\\\@-]+\\.(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)$","maxLength":255}`,
	ruleCredential: `{"pattern":"^[ -.0-9;-~]+$","maxLength":255,"not":{"pattern":"^[.]{1,2}$"}}`,
	ruleProgram:    `{"anyOf":[{"$ref":"#/$defs/file"},{"pattern":"^[^/\u0000]+$","maxLength":255}]}`,
	ruleExported:   `{"pattern":"^[A-Za-z_][0-9A-Za-z_]*$","maxLength":255}`,
	ruleVariable:   `{"pattern":"^[^=\u0000]+$","not":{"enum":["container","container_uuid","NOTIFY_SOCKET","CREDENTIALS_DIRECTORY"]}}`,
}

// What checks of keys against each other look like in the schema.
var objectSchemas = map[string]string{
	"root": `[
		{"not":{"required":["state","ephemeral"],"properties":{"state":{"const":true},"ephemeral":{"const":true}}}},
		{"not":{"required":["state","ephemeral"],"properties":{"state":{"const":false},"ephemeral":{"const":false}}}},
		{"if":{"required":["sizeBytes"]},"then":{"anyOf":[
			{"required":["ephemeral"],"properties":{"ephemeral":{"const":true}}},
			{"required":["state"],"properties":{"state":{"const":false}}}]}}]`,
	"mounts[]": `[{"if":{"required":["kind"],"properties":{"kind":{"const":"tmpfs"}}},
		"then":{"properties":{"source":false}},
		"else":{"required":["source"],"properties":{"sizeBytes":false}}}]`,
	"credentials[]": `[{"oneOf":[{"required":["file"]},{"required":["command"]},{"required":["environment"]}]}]`,
	"": `[{"if":{"required":["network"],"properties":{"network":{"required":["mode"],"properties":{"mode":{"const":"host"}}}}},
		"then":{"properties":{"links":{"maxItems":0}}}}]`,
	"network": `[
		{"if":{"required":["mode"],"properties":{"mode":{"const":"host"}}},
			"then":{"properties":{"outbound":false,"hostLoopback":false,"allow":false,"mtu":false,"ports":{"maxItems":0}}}},
		{"if":{"required":["outbound"],"properties":{"outbound":{"const":false}}},
			"then":{"properties":{"hostLoopback":{"const":false},"allow":false,"mtu":false}}},
		{"properties":{"allow":{"minItems":1}}},
		{"if":{"required":["ports"],"properties":{"ports":{"contains":{"required":["handOver"],"properties":{"handOver":{"const":true}}}}}},
			"then":{"properties":{"allow":false}}},
		{"if":{"required":["idleStopSeconds"]},"then":{"required":["ports"],"properties":{"ports":{
			"contains":{"required":["socketActivation"],"properties":{"socketActivation":{"const":true}}}}}}}]`,
	"network.ports[]": `[
		{"if":{"anyOf":[
				{"required":["protocol"],"properties":{"protocol":{"const":"udp"}}},
				{"required":["handOver"],"properties":{"handOver":{"const":true}}}]},
			"then":{"properties":{"proxyProtocol":{"const":false},"socketActivation":{"const":false}}}},
		{"if":{"properties":{"host":{"const":0}}},
			"then":{"properties":{"handOver":{"const":false}}}}]`,
}

func reference(r rule) members {
	var m members
	m.add("$ref", "#/$defs/"+string(r))
	return m
}

func objectSchema(prefix string, keys []key, m *members) {
	var properties members
	required := []string{}
	for i := range keys {
		k := &keys[i]
		properties.add(k.name, keySchema(prefix+k.name, k))
		if k.required {
			required = append(required, k.name)
		}
	}
	m.add("additionalProperties", false)
	if len(required) > 0 {
		m.add("required", required)
	}
	m.add("properties", properties)
	if rules := objectSchemas[strings.TrimSuffix(prefix, ".")]; rules != "" {
		m.add("allOf", json.RawMessage(rules))
	}
}

func keySchema(path string, k *key) members {
	var m members
	m.add("description", k.doc)
	m.add("type", schemaTypes[k.kind])
	if k.def != "" {
		m.add("default", json.RawMessage(k.def))
	}
	m.add("examples", []json.RawMessage{json.RawMessage(k.example)})
	items := reference(k.rule)
	switch k.kind {
	case isObject:
		objectSchema(path+".", k.fields, &m)
	case isObjects:
		var item members
		item.add("type", "object")
		objectSchema(path+"[].", k.fields, &item)
		m.add("items", item)
	case isString:
		if k.enum != nil {
			m.add("enum", k.enum)
		} else {
			m.add("$ref", "#/$defs/"+string(k.rule))
		}
	case isStrings:
		if k.rule.isCommand() {
			m.add("minItems", 1)
			m.add("prefixItems", []members{reference(k.rule.word(0))})
			items = reference(k.rule.word(1))
		}
		m.add("items", items)
	case isMap:
		if k.keyRule != "" {
			m.add("propertyNames", reference(k.keyRule))
		}
		m.add("additionalProperties", items)
	case isInteger:
		m.add("minimum", k.min)
		if k.max != maxBytes { // beyond what many readers of JSON can hold
			m.add("maximum", k.max)
		}
	}
	return m
}

func schema() string {
	var m, defs members
	m.add("$schema", "https://json-schema.org/draft/2020-12/schema")
	m.add("$id", "https://github.com/nix-user-containers/nuc/docs/descriptor.schema.json")
	m.add("title", "nuc descriptor, version 1")
	m.add("type", "object")
	objectSchema("", keys, &m)
	for _, r := range []rule{ruleText, ruleName, rulePath, ruleFile, ruleStorePath, ruleDevice, ruleTarget, ruleSignal, ruleAddress, ruleHostName, ruleAllow, ruleUnit, ruleVariable, ruleCredential, ruleProgram, ruleExported} {
		var def members
		def.add("type", "string")
		var rest map[string]json.RawMessage
		if err := json.Unmarshal([]byte(ruleSchemas[r]), &rest); err != nil {
			panic(fmt.Sprintf("%s: %v", r, err))
		}
		for _, name := range []string{"$ref", "pattern", "minLength", "maxLength", "not", "anyOf"} {
			if value, found := rest[name]; found {
				def.add(name, value)
				delete(rest, name)
			}
		}
		if len(rest) > 0 {
			panic(fmt.Sprintf("%s: %v has no place in the schema", r, rest))
		}
		defs.add(string(r), def)
	}
	m.add("$defs", defs)
	compact, err := m.MarshalJSON()
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		panic(err)
	}
	return b.String() + "\n"
}
