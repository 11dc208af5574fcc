"""Formulas as MathML, which browsers show by themselves, without a network or a script."""

from latex2mathml.converter import convert


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(visit_inline, None),
        block_renderers=(visit_block, None),
    )
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def visit_inline(translator, node):
    from docutils import nodes

    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def visit_block(translator, node):
    from docutils import nodes

    formula = convert(node.astext(), display="block")
    translator.body.append(f'<div class="math">{formula}</div>\n')
    raise nodes.SkipNode
