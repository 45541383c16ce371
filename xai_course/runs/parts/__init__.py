"""What only table rows need: data sets, networks, methods and measures made from the library's."""
