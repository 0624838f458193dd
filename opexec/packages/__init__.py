"""The rooms behind `opexec.package`: the layout of a package, its parts, what unpacks it, what writes it, and which version of a framework it asks for."""
