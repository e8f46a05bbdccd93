"""What operators use: configuration, jobs, reports, metrics, progress, the command line.

==============  ==================================================================
module          what it holds
==============  ==================================================================
``cli``         what can be typed; imports a command when it runs
``commands``    what each command does, one module a command
``files``       finds and reads the configuration file
``config``      the classes that are the configuration
``checks``      what must hold between its keys, and with the installed plugins
``session``     what a command on jobs begins with: plugins, configuration, endpoints
``jobs``        does something for each job; one that fails stops none
``signals``     SIGINT and SIGTERM: cleanly, then at once
``report``      the JSON documents
``summary``     the end of a run for people
``screen``      tables
``words``       how things are called in what is printed
``progress``    a run in plain lines on standard error
``bars``        a run as progress bars, on a terminal
``logs``        a run as a log, for people or as JSON
``metrics``     a run as metrics for node-exporter
``demo_tree``   a tree with everything in it that a replication can get wrong
==============  ==================================================================
"""
