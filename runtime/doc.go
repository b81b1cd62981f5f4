// Package runtime runs guests in wazero: it compiles each module once, instantiates it cheaply,
// limits it, interrupts it, and offers it its imports.
//
// One [Engine] serves a node. A [Module] is compiled code, shared by all instances of it and kept on
// disk between runs. An [Instance] is one guest with its own memory, which is reserved but costs
// nothing until it is touched; it runs once, from Instantiate to the end of Run.
//
// A guest gets WASI preview 1 with arguments, environment, clocks, randomness, stdout and stderr. It
// gets no files, no sockets and no input. What it may do beyond computing it asks for through module wasmatrix
// (docs/guest-abi.md), and a [capability.Session] answers. The package knows nothing of nodes, policies or modules'
// names; why it is as it is stands in DESIGN.md.
package runtime
