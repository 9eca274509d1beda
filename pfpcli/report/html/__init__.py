"""The page of a run, report.html: one file without network requests, readable without JavaScript.

This package is given the record of a run and its details, and returns HTML. Each section has a module that turns the
record into a view: a dataclass of texts and of positions on a drawing, so that templates compute nothing. The templates
escape everything that they are given, since names come from files. It imports `pfpcli.records` and `pfpcli.report`
only, and no torch; jinja2 is imported when a page is made.

page        the whole page
views       what the templates show: chips, tables, drawings
verdict     what was asked, what was achieved, and the checks
layers      the table of layers
skeleton    the widths of all layers, drawn
channels    why these channels: scores, curves and the certificate
behaviour   what the network does otherwise: outputs, classes, images
origin      how the run was made, and how to make it again
"""
